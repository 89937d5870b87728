"""What a command line becomes: ``arguments`` what may be written shorter and where the configs lie, ``resolvers``
our interpolations, ``nested`` dotted keys, ``targets`` what a config may build.
"""
