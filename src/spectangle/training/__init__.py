"""One experiment: ``experiment`` from config to finished folder, ``checks`` before, ``progress`` and ``checkpoints``
meanwhile, ``resumption`` after a stop, ``pruning`` where a sweep asks for it.
"""
