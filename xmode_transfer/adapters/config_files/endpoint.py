"""Whether requests go to AWS, or to a store like it."""


def endpoint_url(service: str) -> str | None:
    """The endpoint that AWS's own variables and files name for the service (``S3``, ``STS``); None for
    AWS's. Asked only when something depends on it: botocore is slow to import."""
    from botocore.configprovider import ConfiguredEndpointProvider
    from botocore.exceptions import BotoCoreError

    from xmode_transfer.adapters.aws_sessions import new_session

    try:
        session = new_session()
        if session.get_config_variable("ignore_configured_endpoint_urls"):
            return None
        url: str | None = ConfiguredEndpointProvider(
            session.full_config, session.get_scoped_config(), service.lower()
        ).provide()
    except BotoCoreError:  # a profile that is not there: told by whoever needs it
        return None
    return url
