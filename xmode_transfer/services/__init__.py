"""Use cases. Each has one public function, and the ports it needs come as arguments."""
