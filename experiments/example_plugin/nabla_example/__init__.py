"""Components for nabla from outside the package."""
