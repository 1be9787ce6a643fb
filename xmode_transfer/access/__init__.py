"""Customers' access: checked by trying it, policies and their lint, the onboarding kit."""
