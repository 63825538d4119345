"""How the answer is found in a response, and when two answers are the same."""
