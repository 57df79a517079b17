"""The product catalogue: matching by part number, prices, stock, units, and what a feed changes."""
