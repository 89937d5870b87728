"""Packs: several models as one. ``pack_key`` says which may share one, ``pack_server`` is its process with a
``stack`` of members, ``line`` how a run talks to it, ``network_fits`` what is fitted on its GPU after the training.
"""
