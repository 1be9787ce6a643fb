"""The files of feeds: local directories and S3."""
