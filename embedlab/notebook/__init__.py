"""For notebooks: pictures in grids, a sweep read back, studies and grids run as the command line runs them."""
