"""xmode-transfer: delivers data files into customers' own S3 buckets, once, whole and proven."""
