"""The referee's arithmetic: estimates with their intervals, and what they are estimates of."""
