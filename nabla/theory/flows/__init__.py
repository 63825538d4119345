"""Independent routes to ρ_t: grid, JKO, Langevin particles, Bures-Wasserstein ODE, policy optimisation."""
