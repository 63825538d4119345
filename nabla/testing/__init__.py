"""What tests need and users may need too: models small enough to enumerate, built in milliseconds."""
