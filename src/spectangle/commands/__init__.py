"""The commands: one file each, ``main`` chooses among them, ``app`` runs them under Hydra, ``help`` explains them."""
