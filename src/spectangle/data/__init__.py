"""Stars for training: ``stars`` in memory with their roles, ``module`` of any survey, ``embedded_survey`` made when
it is used, ``load`` those of a run.
"""
