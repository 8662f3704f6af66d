"""Time, money and energy, and the devices that they depend on."""
