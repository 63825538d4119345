"""Before a study: which of the signals at hand tell what will pay, and which method they speak for."""
