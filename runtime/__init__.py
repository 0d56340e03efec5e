"""What both processes are made of around their cores: explained errors, keys, logs, pages.

Nothing here knows of blocks or votes. `engine` and `consensus` stand above, `engine_api` below.
"""
