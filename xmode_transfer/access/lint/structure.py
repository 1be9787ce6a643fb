"""How a document is written: what AWS would refuse, what is in the wrong place, what was left unfilled, and
whether what it names, principals, partitions and buckets, is what is meant."""

import re
from collections.abc import Iterator, Mapping

from xmode_transfer.access.lint.records import (
    DOCUMENT_ELEMENTS,
    OPERATORS,
    STATEMENT_ELEMENTS,
    Document,
    Fault,
    Issue,
    Kind,
    Statement,
    issue,
    known_operator,
    meant_key,
    unknown_action,
    unknown_key,
)
from xmode_transfer.aws.policy.documents import SetupValues
from xmode_transfer.aws.policy.patterns import strings
from xmode_transfer.config.base import did_you_mean
from xmode_transfer.model.findings import Severity

PLACEHOLDERS = ("BUCKET", "bucket-name")
_PLACEHOLDER = re.compile(
    r"\{[^}]*\}?|EXTERNAL-ID|:::BUCKET\b|:::bucket-name(?![\w.-])|KEY-ARN|<[A-Za-z -]+>|(?i:replace with)"
)
_VARIABLE = re.compile(r"\$\{[^}]*\}")  # AWS fills it in
_TRUST_STEPS = "console steps 5 and 8; CLI step 2"
_S3_ARN = re.compile(r"arn:(?P<partition>[a-z-]+):s3:::(?P<bucket>[^/]*)(?P<objects>/.*)?", re.DOTALL)
_PLACED_S3_ARN = re.compile(r"arn:(?P<partition>[a-z-]+):s3:[a-z0-9-]*:[0-9]*:(?P<rest>[^:]+)")
_ON_BUCKET = ("s3:listbucket", "s3:listbucketmultipartuploads", "s3:getbucketlocation")
_ON_OBJECTS = ("s3:putobject", "s3:putobjectacl", "s3:getobject", "s3:getobjectacl", "s3:deleteobject")
_PRINCIPAL = re.compile(r"arn:(?P<partition>[a-z-]+):(?:iam|sts)::(?P<account>[0-9]*):(?P<what>.+)")


def structure(document: Document, facts: SetupValues) -> Iterator[Issue]:
    """Every issue on how the document is written and what it names, in its order."""
    yield from _frame(document)
    for statement in document.statements():
        yield from _elements(statement)
        yield from _place(statement, facts)
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


# --- How it is written ---------------------------------------------------------------------------------


def _frame(document: Document) -> Iterator[Issue]:
    for name in document.content:
        if name not in DOCUMENT_ELEMENTS:
            meant = did_you_mean(str(name), DOCUMENT_ELEMENTS)
            message, fix = (
                f"a policy has no element {name}{meant}",
                f"Write one of {', '.join(DOCUMENT_ELEMENTS)}",
            )
            yield issue(document.name, Fault.UNKNOWN_ELEMENT, message, fix)
    version = document.content.get("Version")
    if version is not None and version not in ("2012-10-17", "2008-10-17"):
        message = f"{version} is not a policy Version; it names the policy language, not your date"
        yield issue(document.name, Fault.UNKNOWN_ELEMENT, message, 'Write "Version": "2012-10-17"')
    found = document.content.get("Statement")
    if found is None or found == []:
        message = "the policy has no Statement, so it allows nothing"
        yield issue(document.name, Fault.NOT_A_POLICY, message, "Add its Statement")
    elif not all(isinstance(one, Mapping) for one in (found if isinstance(found, list) else [found])):
        fix = "Write each statement as an object {...}"
        yield issue(document.name, Fault.MALFORMED_STATEMENT, "a Statement is not an object", fix)


def _elements(statement: Statement) -> Iterator[Issue]:
    content = statement.content
    for name in content:
        if name not in STATEMENT_ELEMENTS:
            meant = did_you_mean(str(name), STATEMENT_ELEMENTS)
            yield statement.wrong(
                Fault.UNKNOWN_ELEMENT,
                f"{statement} has an element {name}, which AWS does not know{meant}",
                f"Write one of {', '.join(STATEMENT_ELEMENTS)}",
            )
    if content.get("Effect") not in ("Allow", "Deny"):
        yield statement.wrong(
            Fault.MALFORMED_STATEMENT,
            f"the Effect of {statement} is {_shown(content.get('Effect'))}; case counts",
            'Write "Effect": "Allow" or "Effect": "Deny"',
        )
    of_role = statement.document.kind is Kind.TRUST or _is_trust(statement)
    for name in ["Action"] if of_role else ["Action", "Resource"]:
        inverse = f"Not{name}"
        if (name in content) == (inverse in content):
            message = f"both {name} and" if name in content else f"neither {name} nor"
            yield statement.wrong(
                Fault.MALFORMED_STATEMENT, f"{statement} has {message} {inverse}", f"Give it one {name}"
            )
    for name in ("Action", "NotAction", "Resource", "NotResource"):
        if name in content and not _only_texts(content[name]):
            yield statement.wrong(
                Fault.MALFORMED_STATEMENT,
                f"the {name} of {statement} is neither text nor a list of texts",
                f'Write "{name}": "..." or "{name}": ["...", "..."]',
            )


def _place(statement: Statement, facts: SetupValues) -> Iterator[Issue]:
    """Elements that belong into another kind of document."""
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
            step="console step 8",
        )
    elif on_role and named:
        yield statement.wrong(
            Fault.PRINCIPAL_IN_IDENTITY_POLICY,
            f"{statement} has a Principal, which IAM does not accept in a role's policy",
            f"Remove its Principal, or put it into the policy of the bucket {facts.bucket}",
            step="console step 8",
        )
    elif isinstance(content.get("Principal"), str) and content["Principal"] != "*":
        yield statement.wrong(
            Fault.MALFORMED_STATEMENT,
            f"the Principal of {statement} does not say of which kind it is",
            f'Write "Principal": {{"AWS": "{content["Principal"]}"}}',
        )
    elif not on_role and not named:
        whom = facts.principal if kind is Kind.TRUST else facts.role_arn
        yield statement.wrong(
            Fault.MALFORMED_STATEMENT,
            f"{statement} has no Principal, which a {kind} policy needs",
            f'Add "Principal": {{"AWS": "{whom}"}}',
        )
    if kind is Kind.TRUST and ("Resource" in content or "NotResource" in content):
        yield statement.wrong(
            Fault.RESOURCE_IN_TRUST_POLICY,
            f"{statement} has a Resource, which IAM does not accept in a trust policy",
            "Remove its Resource: the role itself is meant",
            step=_TRUST_STEPS,
        )


def _placeholders(statement: Statement, facts: SetupValues) -> Iterator[Issue]:
    """One issue a statement: who left one, left all."""
    for text in _all_texts({name: value for name, value in statement.content.items() if name != "Sid"}):
        found = _PLACEHOLDER.search(_VARIABLE.sub("", text))
        if found is None:
            continue
        trust = statement.document.kind is Kind.TRUST
        value = facts.external_id if trust else facts.bucket
        braces = "; braces cannot even be sent to AWS as part of an external ID" if "{" in found[0] else ""
        yield statement.wrong(
            Fault.PLACEHOLDER_LEFT,
            f"{statement} still has the guide's placeholder text: {text}{braces}",
            "Write your own value in its place" + ("" if value in text else f", {value}"),
            step=_TRUST_STEPS if trust else "CLI step 4",
        )
        return


def _actions(statement: Statement) -> Iterator[Issue]:
    """An unknown name is a warning: AWS adds some, and the probes find what a wrong one does not grant."""
    for name in ("Action", "NotAction"):
        for action in _only_texts(statement.content.get(name)):
            message, fix = unknown_action(action), "Correct its name; an unknown one grants nothing"
            severity, service = Severity.WARNING, action.partition(":")[0]
            if action != "*" and not re.fullmatch(r"[^:\s]+:[^:\s]+", action):
                message = f"{action!r} is not an action; write it like s3:PutObject"
                severity = Severity.ERROR  # AWS refuses the document
            elif action != "*" and set("*?") & set(service):
                message = f"{action} has a wildcard in its service's name, so that it may mean others as well"
                fix = "Write the service's name in full, like s3:"
            if message is not None:
                yield statement.wrong(Fault.UNKNOWN_ACTION, f"{statement}: {message}", fix, severity)


def _condition(statement: Statement) -> Iterator[Issue]:
    condition = statement.content.get("Condition")
    if condition is None:
        return
    if not isinstance(condition, Mapping) or not all(
        isinstance(keys, Mapping) for keys in condition.values()
    ):
        yield statement.wrong(
            Fault.MALFORMED_STATEMENT,
            f"{statement}: its Condition is not written as operator, key, value",
            'Write it like {"StringEquals": {"sts:ExternalId": "AcmeCorp"}}',
        )
        return
    for operator, keys in condition.items():
        if not known_operator(str(operator)):
            meant = did_you_mean(str(operator), OPERATORS)
            yield statement.wrong(
                Fault.UNKNOWN_OPERATOR,
                f"{statement}: {operator} is not a condition operator{meant}",
                "Correct its name; AWS refuses the document as it is",
            )
        for key in keys:
            message, meant_for = unknown_key(str(key)), meant_key(str(key))
            if message is not None:
                fix = f"Write {meant_for}" if meant_for else "Correct its name, unless AWS has added it"
                fault = Fault.UNKNOWN_CONDITION_KEY
                yield statement.wrong(fault, f"{statement}: {message}", fix, Severity.WARNING)


def _is_trust(statement: Statement) -> bool:
    content = statement.content
    named = "Principal" in content or "NotPrincipal" in content
    return named and any(action.lower().startswith("sts:") for action in _only_texts(content.get("Action")))


def _only_texts(value: object) -> tuple[str, ...]:
    """Texts of an element, or nothing when it is not made of texts."""
    listed = value if isinstance(value, list) else [value]
    found = tuple(one for one in listed if isinstance(one, str))
    return found if len(found) == len(listed) else ()


def _all_texts(value: object) -> Iterator[str]:
    """Every text among the values, and the keys of what names a principal or a condition."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | Mapping):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _all_texts(one)


def _shown(value: object) -> str:
    texts = strings(value)
    return repr(texts[0]) if texts else "missing" if value is None else "no text"


# --- What it names -------------------------------------------------------------------------------------


def _resource(statement: Statement, text: str, facts: SetupValues) -> Iterator[Issue]:
    arn = f"arn:{facts.partition}:s3:::{facts.bucket}"
    found = _S3_ARN.fullmatch(text)
    if found is not None:
        if found["partition"] != facts.partition:
            yield statement.wrong(
                Fault.WRONG_PARTITION,
                f"{statement}: {text} is in the partition {found['partition']}, the role in "
                f"{facts.partition}",
                f"Write arn:{facts.partition}:s3:::{found['bucket']}{found['objects'] or ''}",
            )
        bucket = found["bucket"]
        if bucket != facts.bucket and not set("*?${}") & set(bucket) and bucket not in PLACEHOLDERS:
            yield statement.wrong(
                Fault.OTHER_BUCKET,
                f"{statement}: {text} is the bucket {bucket}, but we deliver to {facts.bucket}",
                f"Write {arn} and {arn}/*, or tell us that the bucket has changed",
                Severity.WARNING,
            )
        return
    placed = _PLACED_S3_ARN.fullmatch(text)
    bare = not text.startswith("arn:") and text != "*" and "*" not in text.partition("/")[0]
    if placed is not None:
        yield statement.wrong(
            Fault.MALFORMED_ARN,
            f"{statement}: the ARN of a bucket has neither Region nor account: {text}",
            f"Write arn:{placed['partition']}:s3:::{placed['rest']}",
        )
    elif bare and statement.document.kind is not Kind.KEY:
        fix = f"Write arn:{facts.partition}:s3:::{text.removeprefix('s3://')}"
        yield statement.wrong(Fault.MALFORMED_ARN, f"{statement}: {text} is not an ARN", fix)


def _principal(statement: Statement, text: str, facts: SetupValues) -> Iterator[Issue]:
    """In a trust policy we are the principal; in a bucket's and a key's policy the customer's role is."""
    ours = statement.document.kind is Kind.TRUST
    wanted = facts.principal if ours else facts.role_arn
    found = _PRINCIPAL.fullmatch(text)
    if found is None or text == wanted:
        return
    partition, account = wanted.split(":")[1], wanted.split(":")[4]
    if found["partition"] != partition:
        yield statement.wrong(
            Fault.WRONG_PARTITION,
            f"{statement}: {text} is in the partition {found['partition']}, and principals of another "
            "partition cannot get access",
            f"Write {wanted}",
            Severity.ERROR if ours else Severity.WARNING,
        )
    elif ours and found["what"] != "root":
        what = "account" if found["account"] != account else "name"
        yield statement.wrong(
            Fault.OTHER_PRINCIPAL,
            f"{statement}: {text} is not XMode's user: another {what}",
            f"Write {wanted}, and leave others out",
            Severity.WARNING,
        )


def _both_forms(document: Document, facts: SetupValues) -> Iterator[Issue]:
    """Rights on objects need the ARN with /*, rights on the bucket the one without."""
    arn = f"arn:{facts.partition}:s3:::{facts.bucket}"
    on_bucket: set[str] = set()
    on_objects: set[str] = set()
    for_bucket: Statement | None = None
    for_objects: Statement | None = None
    for statement in document.statements():
        content = statement.content
        if content.get("Effect") != "Allow" or "NotResource" in content or "NotAction" in content:
            continue
        for action in (text.lower() for text in statement.texts("Action")):
            if action in _ON_BUCKET:
                for_bucket = for_bucket or statement
                on_bucket.update(statement.texts("Resource"))
            if action in _ON_OBJECTS:
                for_objects = for_objects or statement
                on_objects.update(statement.texts("Resource"))
    ours = any(text.startswith(arn) for text in on_objects | on_bucket)
    if for_objects and ours and on_objects and on_objects <= {arn, f"{arn}/"}:
        yield for_objects.wrong(
            Fault.OBJECTS_NOT_NAMED,
            f"rights on objects are granted on {arn} only, which is the bucket and not its objects",
            f"Add {arn}/* to the Resource",
            step="CLI step 4",
        )
    if for_bucket and on_bucket and all(text.startswith(f"{arn}/") for text in on_bucket):
        yield for_bucket.wrong(
            Fault.BUCKET_NOT_NAMED,
            f"s3:ListBucket is granted on {', '.join(sorted(on_bucket))}, which are objects, not the bucket",
            f"Add {arn} to the Resource",
            step="CLI step 4",
        )
