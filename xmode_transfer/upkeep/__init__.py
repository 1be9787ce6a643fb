"""What is delivered is kept right: list, verify, repair, adopt, cleanup, receipts."""
