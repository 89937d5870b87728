"""Folders that explain themselves, files only: ``folder`` of one run, ``sweep_folder`` of many, ``environment`` what
made them, ``ownership`` who writes in them, ``entry`` what may go on in them, ``sweep_link`` the line to the sweep
that started a run.
"""
