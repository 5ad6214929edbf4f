"""The only wiring: builds the parts from the settings, starts them in order, stops them in reverse, supervises."""
