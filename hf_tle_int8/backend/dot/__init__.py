"""Matrix products in registers: the instructions that CPUs have for them, and how a product is divided into them."""
