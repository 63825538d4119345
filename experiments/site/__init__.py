"""The documentation site: pages of docs/ and experiments/, and what is generated from the code."""
