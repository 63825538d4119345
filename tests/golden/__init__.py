"""What every method wrote, proposed and spent, recorded before the core was rebuilt."""
