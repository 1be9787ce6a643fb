"""What the customer's engineer reads: the setup guide's two ways, corrected and filled in, and two more."""

from collections.abc import Iterator

from xmode_transfer.domain.onboarding.page import (
    Block,
    Bullets,
    Heading,
    Listing,
    Page,
    Paragraph,
    Steps,
    Text,
    Values,
    text,
)
from xmode_transfer.domain.onboarding.values import DESCRIPTION, LIFECYCLE_DAYS, KitValues
from xmode_transfer.domain.onboarding.written import json_text


def instructions(values: KitValues) -> Page:
    return Page(f"Deliveries from XMode into {values.place}", tuple(_blocks(values)))


def _blocks(values: KitValues) -> Iterator[Block]:
    intro = text(
        "For {company:plain}. You make one role in your AWS account. XMode assumes it to put data files into "
        "your bucket; it gets no key of yours, and you can take the role away at any time. It takes about "
        "five minutes, by somebody who may make IAM roles.",
        company=values.customer.company,
    )
    choice = text(
        "**Everything is filled in. There is nothing to replace by hand.** Choose one of the four ways "
        "below; they make the same role."
    )
    yield Paragraph(intro)
    yield Paragraph(choice)
    yield Values("What this kit is for", tuple(_rows(values)))
    yield Heading("What XMode may do")
    yield Bullets(tuple(_rights(values)))
    yield Heading("Way 1: the console")
    yield Steps(tuple(_console(values)))
    yield from _command_line(values)
    yield from _templates()
    yield from _key(values)
    yield from _lifecycle(values)
    yield from _afterwards(values)


def _rows(values: KitValues) -> Iterator[tuple[str, str]]:
    customer = values.customer
    yield "Your AWS account", customer.account_id
    yield "Bucket", values.bucket
    yield "Folder in the bucket", customer.destination.prefix or "(the whole bucket)"
    if values.region is not None:
        yield "Region of the bucket", values.region
    if customer.destination.kms_key_arn is not None:
        yield "KMS key", customer.destination.kms_key_arn
    yield "Name of the role", values.role_name
    yield "External ID", customer.external_id
    yield "Who may assume the role", values.principal


def _rights(values: KitValues) -> Iterator[Text]:
    prefix = values.customer.destination.prefix
    yield text(
        "List, put, read and delete objects below {place}, and end uploads of its own.", place=values.place
    )
    yield text(
        "Nothing else. Objects that come with an ACL come with `bucket-owner-full-control`, so that they are "
        "yours; every other ACL or grant, and S3 outside this bucket, is denied."
    )
    if prefix:
        yield text(
            "Objects outside the folder {prefix} are neither listed nor read nor written.",
            prefix=prefix,
        )
    if values.customer.destination.kms_key_arn is not None:
        yield text("Use your KMS key, through S3 only, to write and check what it delivers.")
    yield text(
        "All of this only with your external ID, which no other customer of XMode has. It identifies; it is "
        "no secret. Do not change it on your side alone."
    )


def _console(values: KitValues) -> Iterator[tuple[Text, Listing | None]]:
    customer = values.customer
    yield (
        text(
            "Sign in to account {account} and open the IAM console, {console}.",
            account=customer.account_id,
            console=values.console,
        ),
        None,
    )
    yield text("Choose **Roles**, then **Create role**."), None
    yield (
        text(
            "Choose **Custom trust policy** and replace what stands in the field by this. It demands your "
            "external ID and trusts one user of XMode, so that nothing need be changed afterwards."
        ),
        Listing("Trust policy", "json", json_text(values.trust_policy)),
    )
    yield text("Choose **Next**, choose no policy, and choose **Next** again."), None
    yield (
        text(
            "For **Role name** type {name}, for **Description** {description}. Choose **Create role**.",
            name=values.role_name,
            description=DESCRIPTION,
        ),
        None,
    )
    yield (
        text(
            "Open the role {name}. On the tab **Permissions** choose **Add permissions**, **Create inline "
            "policy**, then **JSON**, and replace what stands there by this.",
            name=values.role_name,
        ),
        Listing("Permission policy", "json", json_text(values.permission_policy)),
    )
    yield (
        text(
            "Choose **Next**, for **Policy name** type {name}, and choose **Create policy**.",
            name=values.policy_name,
        ),
        None,
    )


def _command_line(values: KitValues) -> Iterator[Block]:
    path = f"  --path {values.role_path} \\\n" if values.role_path != "/" else ""
    commands = (
        f"aws iam create-role --role-name {values.role_name} \\\n"
        f"{path}"
        f"  --description '{DESCRIPTION}' \\\n"
        "  --assume-role-policy-document file://trust-policy.json\n"
        f"aws iam put-role-policy --role-name {values.role_name} --policy-name {values.policy_name} \\\n"
        "  --policy-document file://permission-policy.json\n"
    )
    told = text(
        "In the directory of this kit, signed in to account {account}, run the script. It makes sure of the "
        "account, makes the role or brings it up to date, and may be run again.",
        account=values.customer.account_id,
    )
    yield Heading("Way 2: the command line")
    yield Paragraph(told)
    yield Listing("Run the script", "sh", "bash setup.sh\n")
    yield Paragraph(text("Or the two calls of which it mainly consists:"))
    yield Listing("The calls of the AWS CLI", "sh", commands)


def _templates() -> Iterator[Block]:
    deploy = (
        "aws cloudformation deploy --stack-name xmode-delivery --template-file template.yaml \\\n"
        "  --capabilities CAPABILITY_NAMED_IAM\n"
    )
    yield Heading("Way 3: CloudFormation")
    yield Paragraph(text("In the console, or in the directory of this kit:"))
    yield Listing("Deploy the template", "sh", deploy)
    yield Heading("Way 4: Terraform")
    yield Paragraph(text("In the directory of this kit, or with it as a module of yours:"))
    yield Listing("Apply the module", "sh", "terraform init\nterraform apply\n")


def _key(values: KitValues) -> Iterator[Block]:
    if values.key_statement is None:
        return
    told = text(
        "The role's policy allows the use of your key. That is enough where the key's own policy leaves its "
        "use to IAM policies, as the default key policy does (it has a statement for {root}). Where it does "
        "not, or where the key belongs to another account, add this statement to the key's policy, after the "
        "role was made:",
        root=f"arn:{values.customer.partition}:iam::{values.customer.account_id}:root",
    )
    yield Heading("Your KMS key")
    yield Paragraph(told)
    yield Listing("Statement for the key's policy", "json", json_text(values.key_statement))


def _lifecycle(values: KitValues) -> Iterator[Block]:
    why = text(
        "An upload that breaks off leaves parts that S3 keeps and bills until somebody ends it. XMode ends "
        f"its own; this rule ends what could not be ended, after {LIFECYCLE_DAYS} days."
    )
    care = text(
        "**Take care:** AWS has no call that adds a rule. `put-bucket-lifecycle-configuration` replaces all "
        "rules that the bucket has, and so does Terraform's resource. If it has any, add this one "
        "to them: in the S3 console, at the bucket, **Management**, **Create lifecycle rule**. If it has "
        "none, the script adds it, and changes nothing where it finds rules:"
    )
    yield Heading("Recommended: a lifecycle rule")
    yield Paragraph(why)
    yield Listing("Lifecycle rule", "json", json_text(values.lifecycle))
    yield Paragraph(care)
    yield Listing("For a bucket without lifecycle rules", "sh", "bash setup.sh --lifecycle\n")


def _afterwards(values: KitValues) -> Iterator[Block]:
    done = text(
        "Tell your contact at XMode that {role} is ready. We then test each right by using it below {place}, "
        "take our test objects away again, and make sure that the role refuses us without your external ID. "
        "Deliveries begin when all of it is as it should be; otherwise you hear what to change.",
        role=values.customer.role_arn,
        place=values.place,
    )
    yield Heading("When you are done")
    yield Paragraph(done)
    yield Bullets(
        (
            text(
                "Another name for the role, another folder, bucket or key? Tell us first: we send you a new "
                "kit, and our side has to know."
            ),
            text(
                "A bucket policy, an organisation's policy (SCP) or the policy of a VPC endpoint that denies "
                "S3 to others must let this role through."
            ),
            text("To end it, delete the role. Nothing else was made."),
        )
    )
    yield Heading("If you know our setup guide")
    yield Paragraph(text("This kit does what the guide means, and mends what it gets wrong:"))
    yield Bullets(
        (
            text(
                "The guide's console step 8 shows the trust policy where the permission policy belongs; IAM "
                "does not take it there. Step 6 here has the right one."
            ),
            text(
                "Its steps 4 and 15 to 17 first trust our whole account and narrow that afterwards. Here one "
                "user is trusted from the beginning."
            ),
            text("Its text to replace has a quotation mark too many, so that it is no JSON as it stands."),
            text(
                "Its command line names the policy `:role/my-policy`, where AWS wants `:policy/my-policy`. "
                "The policy here is part of the role, so that there is no such name to give."
            ),
            text(
                "Its permission policy covers the whole bucket, does not let us end our own unfinished "
                "uploads, and denies KMS keys. The one here ends at your folder."
            ),
        )
    )
