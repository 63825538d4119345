"""What methods are evaluated on: problems with gold answers, and how responses are graded."""
