"""The top floor: the command line, trials, sweeps and the runners that train them."""
