"""AWS: role sessions, session policies, S3 by two engines, and what its errors mean."""
