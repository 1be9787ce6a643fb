"""Issues in how a document is written, and principals, partitions and buckets other than the customer's."""

import re
from collections.abc import Iterator, Mapping

from xmode_transfer.access.lint import records
from xmode_transfer.access.lint.records import Document, Fault, Issue, Kind, Statement, issue
from xmode_transfer.aws.policy.documents import SetupValues
from xmode_transfer.aws.policy.patterns import strings
from xmode_transfer.config.base import did_you_mean
from xmode_transfer.model.findings import Severity

PLACEHOLDERS = ("BUCKET", "bucket-name")
_PLACEHOLDER = re.compile(
    r"\{[^}]*\}?|EXTERNAL-ID|:::BUCKET\b|:::bucket-name(?![\w.-])|KEY-ARN|<[A-Za-z -]+>|(?i:replace with)"
)
_VARIABLE = re.compile(r"\$\{[^}]*\}")  # AWS fills it in
_S3_ARN = re.compile(r"arn:(?P<partition>[a-z-]+):s3:::(?P<bucket>[^/]*)(?P<objects>/.*)?", re.DOTALL)
_PLACED_S3_ARN = re.compile(r"arn:(?P<partition>[a-z-]+):s3:[a-z0-9-]*:[0-9]*:(?P<rest>[^:]+)")
_PRINCIPAL = re.compile(r"arn:(?P<partition>[a-z-]+):(?:iam|sts)::(?P<account>[0-9]*):(?P<what>.+)")
_DOCUMENT_ELEMENTS = ("Version", "Id", "Statement")
_STATEMENT_ELEMENTS = (
    *("Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction"),
    *("Resource", "NotResource", "Condition"),
)


def structure(document: Document, facts: SetupValues) -> Iterator[Issue]:
    yield from _frame(document)
    for statement in document.statements():
        yield from _elements(statement)
        yield from _principal_element(statement, facts)
        yield from _placeholders(statement, facts)
        yield from _actions(statement)
        yield from _condition(statement)
    for statement in document.statements():
        for text in dict.fromkeys(statement.texts("Resource", "NotResource")):
            yield from _resource(statement, text, facts)
        for text in dict.fromkeys(statement.principals()):
            yield from _principal(statement, text, facts)
    if document.kind is Kind.PERMISSION:
        yield from _both_forms(document, facts)


def _frame(document: Document) -> Iterator[Issue]:
    name, content = document.name, document.content
    for element in content:
        if element not in _DOCUMENT_ELEMENTS:
            meant = did_you_mean(str(element), _DOCUMENT_ELEMENTS)
            fix = f"Write one of {', '.join(_DOCUMENT_ELEMENTS)}"
            yield issue(name, Fault.UNKNOWN_ELEMENT, f"a policy has no element {element}{meant}", fix)
    version = content.get("Version")
    if version is not None and version not in ("2012-10-17", "2008-10-17"):
        message = f"{version} is not a policy Version; it names the policy language, not your date"
        yield issue(name, Fault.UNKNOWN_ELEMENT, message, 'Write "Version": "2012-10-17"')
    found = content.get("Statement")
    if found is None or found == []:
        message = "the policy has no Statement, so it allows nothing"
        yield issue(name, Fault.NOT_A_POLICY, message, "Add its Statement")
    elif not all(isinstance(one, Mapping) for one in (found if isinstance(found, list) else [found])):
        fix = "Write each statement as an object {...}"
        yield issue(name, Fault.MALFORMED_STATEMENT, "a Statement is not an object", fix)


def _elements(statement: Statement) -> Iterator[Issue]:
    content = statement.content
    for name in content:
        if name not in _STATEMENT_ELEMENTS:
            meant = did_you_mean(str(name), _STATEMENT_ELEMENTS)
            message = f"{statement} has an element {name}, which AWS does not know{meant}"
            fix = f"Write one of {', '.join(_STATEMENT_ELEMENTS)}"
            yield statement.wrong(Fault.UNKNOWN_ELEMENT, message, fix)
    effect = content.get("Effect")
    if effect not in ("Allow", "Deny"):
        texts = strings(effect)
        shown = repr(texts[0]) if texts else "missing" if effect is None else "no text"
        message = f"the Effect of {statement} is {shown}; case counts"
        fix = 'Write "Effect": "Allow" or "Effect": "Deny"'
        yield statement.wrong(Fault.MALFORMED_STATEMENT, message, fix)
    of_role = statement.document.kind is Kind.TRUST or _is_trust(statement)
    for name in ["Action"] if of_role else ["Action", "Resource"]:
        inverse = f"Not{name}"
        if (name in content) == (inverse in content):
            which = f"both {name} and" if name in content else f"neither {name} nor"
            message = f"{statement} has {which} {inverse}"
            yield statement.wrong(Fault.MALFORMED_STATEMENT, message, f"Give it one {name}")
    for name in ("Action", "NotAction", "Resource", "NotResource"):
        if name in content and not _only_texts(content[name]):
            message = f"the {name} of {statement} is neither text nor a list of texts"
            fix = f'Write "{name}": "..." or "{name}": ["...", "..."]'
            yield statement.wrong(Fault.MALFORMED_STATEMENT, message, fix)


def _principal_element(statement: Statement, facts: SetupValues) -> Iterator[Issue]:
    content, kind = statement.content, statement.document.kind
    named = "Principal" in content or "NotPrincipal" in content
    on_role = kind is Kind.PERMISSION
    if on_role and _is_trust(statement):
        yield statement.wrong(
            Fault.TRUST_POLICY_AS_PERMISSION,
            f"{statement} belongs in a trust policy: it says who may assume the role and grants no right to "
            "the bucket",
            "Put it on the role's tab Trust relationships; the guide shows it in the permission policy's "
            "place. `xmode-transfer policy print --kind permission` prints the one that belongs here",
        )
    elif on_role and named:
        message = f"{statement} has a Principal, which IAM does not accept in a role's policy"
        fix = f"Remove its Principal, or put it into the policy of the bucket {facts.bucket}"
        yield statement.wrong(Fault.PRINCIPAL_IN_IDENTITY_POLICY, message, fix)
    elif isinstance(content.get("Principal"), str) and content["Principal"] != "*":
        message = f"the Principal of {statement} does not say of which kind it is"
        fix = f'Write "Principal": {{"AWS": "{content["Principal"]}"}}'
        yield statement.wrong(Fault.MALFORMED_STATEMENT, message, fix)
    elif not on_role and not named:
        whom = facts.principal if kind is Kind.TRUST else facts.role_arn
        message = f"{statement} has no Principal, which a {kind} policy needs"
        yield statement.wrong(Fault.MALFORMED_STATEMENT, message, f'Add "Principal": {{"AWS": "{whom}"}}')
    if kind is Kind.TRUST and ("Resource" in content or "NotResource" in content):
        message = f"{statement} has a Resource, which IAM does not accept in a trust policy"
        fix = "Remove its Resource: the role itself is meant"
        yield statement.wrong(Fault.RESOURCE_IN_TRUST_POLICY, message, fix)


def _placeholders(statement: Statement, facts: SetupValues) -> Iterator[Issue]:
    """Yield one issue, whatever the number of placeholders."""
    for text in _all_texts({name: value for name, value in statement.content.items() if name != "Sid"}):
        found = _PLACEHOLDER.search(_VARIABLE.sub("", text))
        if found is None:
            continue
        trust = statement.document.kind is Kind.TRUST
        value = facts.external_id if trust else facts.bucket
        braces = "; braces cannot even be sent to AWS as part of an external ID" if "{" in found[0] else ""
        message = f"{statement} still has the guide's placeholder text: {text}{braces}"
        fix = "Write your own value in its place" + ("" if value in text else f", {value}")
        step = records.TRUST_STEPS if trust else "CLI step 4"
        yield statement.wrong(Fault.PLACEHOLDER_LEFT, message, fix, step=step)
        return


def _actions(statement: Statement) -> Iterator[Issue]:
    """Unknown actions are warnings: AWS adds some, and what a wrong one does not grant is a finding."""
    for name in ("Action", "NotAction"):
        for action in _only_texts(statement.content.get(name)):
            message, fix = records.unknown_action(action), "Correct its name; an unknown one grants nothing"
            severity, service = None, action.partition(":")[0]
            if action != "*" and not re.fullmatch(r"[^:\s]+:[^:\s]+", action):
                message = f"{action!r} is not an action; write it like s3:PutObject"
                severity = Severity.ERROR  # AWS refuses the document
            elif action != "*" and set("*?") & set(service):
                message = f"{action} has a wildcard in its service's name, so that it may mean others as well"
                fix = "Write the service's name in full, like s3:"
            if message is not None:
                message = f"{statement}: {message}"
                yield statement.wrong(Fault.UNKNOWN_ACTION, message, fix, severity=severity)


def _condition(statement: Statement) -> Iterator[Issue]:
    condition = statement.content.get("Condition")
    if condition is None:
        return
    if not isinstance(condition, Mapping) or not all(isinstance(one, Mapping) for one in condition.values()):
        message = f"{statement}: its Condition is not written as operator, key, value"
        fix = 'Write it like {"StringEquals": {"sts:ExternalId": "AcmeCorp"}}'
        yield statement.wrong(Fault.MALFORMED_STATEMENT, message, fix)
        return
    for operator in map(str, condition):
        if not records.known_operator(operator):
            meant = did_you_mean(operator, records.OPERATORS)
            message = f"{statement}: {operator} is not a condition operator{meant}"
            fix = "Correct its name; AWS refuses the document as it is"
            yield statement.wrong(Fault.UNKNOWN_OPERATOR, message, fix)
    for _, key, _ in statement.conditions():
        unknown, meant_key = records.unknown_key(key), records.meant_key(key)
        if unknown is not None:
            fix = f"Write {meant_key}" if meant_key else "Correct its name, unless AWS has added it"
            yield statement.wrong(Fault.UNKNOWN_CONDITION_KEY, f"{statement}: {unknown}", fix)


def _is_trust(statement: Statement) -> bool:
    content = statement.content
    named = "Principal" in content or "NotPrincipal" in content
    return named and any(action.lower().startswith("sts:") for action in _only_texts(content.get("Action")))


def _only_texts(value: object) -> tuple[str, ...]:
    """Return nothing when the element is not made of texts alone."""
    listed = value if isinstance(value, list) else [value]
    found = tuple(one for one in listed if isinstance(one, str))
    return found if len(found) == len(listed) else ()


def _all_texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | Mapping):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _all_texts(one)


def _resource(statement: Statement, text: str, facts: SetupValues) -> Iterator[Issue]:
    arn = f"arn:{facts.partition}:s3:::{facts.bucket}"
    found, placed = _S3_ARN.fullmatch(text), _PLACED_S3_ARN.fullmatch(text)
    bare = not text.startswith("arn:") and text != "*" and "*" not in text.partition("/")[0]
    if found is not None:
        bucket = found["bucket"]
        if found["partition"] != facts.partition:
            message = f"{statement}: {text} is in the partition {found['partition']}, the role in "
            fix = f"Write arn:{facts.partition}:s3:::{bucket}{found['objects'] or ''}"
            yield statement.wrong(Fault.WRONG_PARTITION, message + facts.partition, fix)
        if bucket != facts.bucket and not set("*?${}") & set(bucket) and bucket not in PLACEHOLDERS:
            message = f"{statement}: {text} is the bucket {bucket}, but we deliver to {facts.bucket}"
            fix = f"Write {arn} and {arn}/*, or tell us that the bucket has changed"
            yield statement.wrong(Fault.OTHER_BUCKET, message, fix)
    elif placed is not None:
        message = f"{statement}: the ARN of a bucket has neither Region nor account: {text}"
        fix = f"Write arn:{placed['partition']}:s3:::{placed['rest']}"
        yield statement.wrong(Fault.MALFORMED_ARN, message, fix)
    elif bare and statement.document.kind is not Kind.KEY:
        fix = f"Write arn:{facts.partition}:s3:::{text.removeprefix('s3://')}"
        yield statement.wrong(Fault.MALFORMED_ARN, f"{statement}: {text} is not an ARN", fix)


def _principal(statement: Statement, text: str, facts: SetupValues) -> Iterator[Issue]:
    """In a trust policy the vendor is the principal, in a bucket's and a key's policy the customer's role."""
    ours = statement.document.kind is Kind.TRUST
    wanted = facts.principal if ours else facts.role_arn
    found = _PRINCIPAL.fullmatch(text)
    if found is None or text == wanted:
        return
    partition, account = wanted.split(":")[1], wanted.split(":")[4]
    if found["partition"] != partition:
        message = (
            f"{statement}: {text} is in the partition {found['partition']}, and principals of another "
            "partition cannot get access"
        )
        severity = Severity.ERROR if ours else Severity.WARNING
        yield statement.wrong(Fault.WRONG_PARTITION, message, f"Write {wanted}", severity=severity)
    elif ours and found["what"] != "root":
        what = "account" if found["account"] != account else "name"
        message = f"{statement}: {text} is not XMode's user: another {what}"
        yield statement.wrong(Fault.OTHER_PRINCIPAL, message, f"Write {wanted}, and leave others out")


def _both_forms(document: Document, facts: SetupValues) -> Iterator[Issue]:
    """Rights on objects need the ARN with /*, rights on the bucket the one without."""
    arn = f"arn:{facts.partition}:s3:::{facts.bucket}"
    on_bucket: dict[str, Statement] = {}  # resources, each with the first statement that names it
    on_objects: dict[str, Statement] = {}
    for statement in document.statements():
        content = statement.content
        if content.get("Effect") != "Allow" or "NotResource" in content or "NotAction" in content:
            continue
        actions = {text.lower() for text in statement.texts("Action")}
        for needed, found in ((records.ON_BUCKET, on_bucket), (records.ON_OBJECTS, on_objects)):
            for text in statement.texts("Resource") if actions & {one.lower() for one in needed} else ():
                found.setdefault(text, statement)
    if on_objects and on_objects.keys() <= {arn, f"{arn}/"}:
        message = f"rights on objects are granted on {arn} only, which is the bucket and not its objects"
        first = next(iter(on_objects.values()))
        yield first.wrong(Fault.OBJECTS_NOT_NAMED, message, f"Add {arn}/* to the Resource")
    if on_bucket and all(text.startswith(f"{arn}/") for text in on_bucket):
        named = ", ".join(sorted(on_bucket))
        message = f"s3:ListBucket is granted on {named}, which are objects, not the bucket"
        first = next(iter(on_bucket.values()))
        yield first.wrong(Fault.BUCKET_NOT_NAMED, message, f"Add {arn} to the Resource")
