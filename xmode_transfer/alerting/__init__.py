"""Health of every subscription, alerts and their channels, notices to customers."""
