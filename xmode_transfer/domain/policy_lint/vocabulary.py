"""What AWS calls its actions, condition keys and operators, as far as such policies use them.

Source: Service Authorization Reference (S3, STS, KMS), and IAM User Guide, condition operators and global
condition context keys.
"""

from xmode_transfer.domain.config.base import did_you_mean

_S3 = """
AbortMultipartUpload BypassGovernanceRetention CreateAccessPoint CreateBucket CreateJob DeleteAccessPoint
DeleteBucket DeleteBucketOwnershipControls DeleteBucketPolicy DeleteBucketWebsite DeleteObject
DeleteObjectTagging DeleteObjectVersion DeleteObjectVersionTagging GetAccelerateConfiguration GetAccessPoint
GetAccountPublicAccessBlock GetAnalyticsConfiguration GetBucketAcl GetBucketCORS GetBucketLocation
GetBucketLogging GetBucketNotification GetBucketObjectLockConfiguration GetBucketOwnershipControls
GetBucketPolicy GetBucketPolicyStatus GetBucketPublicAccessBlock GetBucketRequestPayment GetBucketTagging
GetBucketVersioning GetBucketWebsite GetEncryptionConfiguration GetInventoryConfiguration
GetLifecycleConfiguration GetMetricsConfiguration GetObject GetObjectAcl GetObjectAttributes
GetObjectLegalHold GetObjectRetention GetObjectTagging GetObjectTorrent GetObjectVersion GetObjectVersionAcl
GetObjectVersionAttributes GetObjectVersionForReplication GetObjectVersionTagging GetObjectVersionTorrent
GetReplicationConfiguration InitiateReplication ListAccessPoints ListAllMyBuckets ListBucket
ListBucketMultipartUploads ListBucketVersions ListJobs ListMultipartUploadParts
ObjectOwnerOverrideToBucketOwner
PutAccelerateConfiguration PutAccountPublicAccessBlock PutAnalyticsConfiguration PutBucketAcl PutBucketCORS
PutBucketLogging PutBucketNotification PutBucketObjectLockConfiguration PutBucketOwnershipControls
PutBucketPolicy PutBucketPublicAccessBlock PutBucketRequestPayment PutBucketTagging PutBucketVersioning
PutBucketWebsite PutEncryptionConfiguration PutInventoryConfiguration PutLifecycleConfiguration
PutMetricsConfiguration PutObject PutObjectAcl PutObjectLegalHold PutObjectRetention PutObjectTagging
PutObjectVersionAcl PutObjectVersionTagging PutReplicationConfiguration ReplicateDelete ReplicateObject
ReplicateTags RestoreObject UpdateJobPriority UpdateJobStatus
"""
_STS = """
AssumeRole AssumeRoleWithSAML AssumeRoleWithWebIdentity AssumeRoot DecodeAuthorizationMessage GetAccessKeyInfo
GetCallerIdentity GetFederationToken GetServiceBearerToken GetSessionToken SetContext SetSourceIdentity
TagSession
"""
_KMS = """
CancelKeyDeletion ConnectCustomKeyStore CreateAlias CreateCustomKeyStore CreateGrant CreateKey Decrypt
DeleteAlias DeleteCustomKeyStore DeleteImportedKeyMaterial DescribeCustomKeyStores DescribeKey DisableKey
DisableKeyRotation DisconnectCustomKeyStore EnableKey EnableKeyRotation Encrypt GenerateDataKey
GenerateDataKeyPair GenerateDataKeyPairWithoutPlaintext GenerateDataKeyWithoutPlaintext GenerateMac
GenerateRandom GetKeyPolicy GetKeyRotationStatus GetParametersForImport GetPublicKey ImportKeyMaterial
ListAliases ListGrants ListKeyPolicies ListKeyRotations ListKeys ListResourceTags ListRetirableGrants
PutKeyPolicy ReEncryptFrom ReEncryptTo ReplicateKey RetireGrant RevokeGrant RotateKeyOnDemand
ScheduleKeyDeletion Sign SynchronizeMultiRegionKey TagResource UntagResource UpdateAlias
UpdateCustomKeyStore UpdateKeyDescription UpdatePrimaryRegion Verify VerifyMac
"""
ACTIONS = {
    service: {name.lower(): name for name in names.split()}
    for service, names in (("s3", _S3), ("sts", _STS), ("kms", _KMS))
}
# Calls of S3 whose right has another name than the call.
RIGHT_OF_CALL = {
    "headbucket": "s3:ListBucket",
    "headobject": "s3:GetObject",
    "listobjects": "s3:ListBucket",
    "listobjectsv2": "s3:ListBucket",
    "putobjects": "s3:PutObject",
    "createmultipartupload": "s3:PutObject",
    "initiatemultipartupload": "s3:PutObject",
    "uploadpart": "s3:PutObject",
    "completemultipartupload": "s3:PutObject",
    "listmultipartuploads": "s3:ListBucketMultipartUploads",
    "listparts": "s3:ListMultipartUploadParts",
    "deleteobjects": "s3:DeleteObject",
    "listbuckets": "s3:ListAllMyBuckets",
    "getbucketencryption": "s3:GetEncryptionConfiguration",
    "copyobject": "s3:PutObject",
}

_KEY_NAMES = """
s3:x-amz-acl s3:x-amz-content-sha256 s3:x-amz-copy-source s3:x-amz-grant-full-control s3:x-amz-grant-read
s3:x-amz-grant-read-acp s3:x-amz-grant-write s3:x-amz-grant-write-acp s3:x-amz-metadata-directive
s3:x-amz-object-ownership s3:x-amz-server-side-encryption s3:x-amz-server-side-encryption-aws-kms-key-id
s3:x-amz-server-side-encryption-customer-algorithm s3:x-amz-storage-class s3:x-amz-website-redirect-location
s3:prefix s3:delimiter s3:max-keys s3:VersionId s3:if-match s3:if-none-match s3:ObjectCreationOperation
s3:authType s3:signatureAge s3:signatureversion s3:TlsVersion s3:ResourceAccount s3:LocationConstraint
s3:DataAccessPointAccount s3:DataAccessPointArn s3:AccessPointNetworkOrigin s3:object-lock-legal-hold
s3:object-lock-mode s3:object-lock-remaining-retention-days s3:object-lock-retain-until-date
s3:RequestObjectTagKeys s3:InventoryAccessibleOptionalFields s3:JobSuspendedCause s3:RequestJobOperation
s3:RequestJobPriority s3:isReplicationPauseRequest s3:ExistingJobOperation s3:ExistingJobPriority
s3:destinationRegion s3:isReplicationPauseRequest
sts:ExternalId sts:RoleSessionName sts:SourceIdentity sts:TransitiveTagKeys sts:DurationSeconds
sts:AWSServiceName sts:RequestContextProviders sts:TaskPolicyArn
kms:ViaService kms:CallerAccount kms:EncryptionContextKeys kms:GrantIsForAWSResource kms:GrantConstraintType
kms:GrantOperations kms:GranteePrincipal kms:RetiringPrincipal kms:ResourceAliases kms:RequestAlias
kms:KeyOrigin kms:KeySpec kms:KeyUsage kms:MultiRegion kms:MultiRegionKeyType kms:EncryptionAlgorithm
kms:DataKeyPairSpec kms:BypassPolicyLockoutSafetyCheck kms:ValidTo kms:WrappingAlgorithm kms:WrappingKeySpec
aws:CalledVia aws:CalledViaFirst aws:CalledViaLast aws:CurrentTime aws:EpochTime aws:MultiFactorAuthAge
aws:MultiFactorAuthPresent aws:PrincipalAccount aws:PrincipalArn aws:PrincipalIsAWSService aws:PrincipalOrgID
aws:PrincipalOrgPaths aws:PrincipalServiceName aws:PrincipalServiceNamesList aws:PrincipalType aws:referer
aws:RequestedRegion aws:ResourceAccount aws:ResourceOrgID aws:ResourceOrgPaths aws:SecureTransport
aws:SourceAccount aws:SourceArn aws:SourceIdentity aws:SourceIp aws:SourceOrgID aws:SourceOrgPaths
aws:SourceVpc aws:SourceVpce aws:SourceVpcArn aws:TagKeys aws:TokenIssueTime aws:UserAgent aws:userid
aws:username aws:ViaAWSService aws:VpcSourceIp aws:FederatedProvider aws:Ec2InstanceSourceVpc
aws:Ec2InstanceSourcePrivateIPv4 aws:VpceAccount aws:VpceOrgID aws:VpceOrgPaths
"""
CONDITION_KEYS = {key.lower(): key for key in _KEY_NAMES.split()}
_KEY_FAMILIES = (
    "aws:principaltag/",
    "aws:requesttag/",
    "aws:resourcetag/",
    "s3:existingobjecttag/",
    "s3:requestobjecttag/",
    "s3:x-amz-object-ownership",
    "s3:buckettag/",
    "s3:accesspointtag/",
    "kms:encryptioncontext:",
    "kms:recipientattestation:",
)

_OPERATOR_NAMES = """
StringEquals StringNotEquals StringEqualsIgnoreCase StringNotEqualsIgnoreCase StringLike StringNotLike
NumericEquals NumericNotEquals NumericLessThan NumericLessThanEquals NumericGreaterThan
NumericGreaterThanEquals DateEquals DateNotEquals DateLessThan DateLessThanEquals DateGreaterThan
DateGreaterThanEquals Bool BinaryEquals IpAddress NotIpAddress ArnEquals ArnNotEquals ArnLike ArnNotLike
"""
OPERATORS = frozenset(f"{base}{end}" for base in _OPERATOR_NAMES.split() for end in ("", "IfExists")) | {
    "Null"
}
DOCUMENT_ELEMENTS = ("Version", "Id", "Statement")
STATEMENT_ELEMENTS = (
    "Sid",
    "Effect",
    "Principal",
    "NotPrincipal",
    "Action",
    "NotAction",
    "Resource",
    "NotResource",
    "Condition",
)


def unknown_action(action: str) -> str | None:
    """What to say of an action that its service does not have; None for one that it has, that has a wildcard,
    or of a service that is not known here."""
    service, colon, name = action.partition(":")
    known = ACTIONS.get(service.lower())
    if not colon or known is None or "*" in name or "?" in name or name.lower() in known:
        return None
    if service.lower() == "s3" and name.lower() in RIGHT_OF_CALL:
        return f"there is no right {action}: the call needs {RIGHT_OF_CALL[name.lower()]}"
    meant = did_you_mean(name, known.values()).replace("did you mean ", f"did you mean {service.lower()}:")
    return f"there is no right {action}{meant}"


def meant_key(key: str) -> str | None:
    """The condition key that an unknown one was meant for, where it can be guessed. None when the key is
    known or resembles none."""
    folded = key.lower()
    if folded in CONDITION_KEYS or folded.startswith(_KEY_FAMILIES):
        return None
    told = did_you_mean(key, CONDITION_KEYS.values())
    return told.removeprefix(" (did you mean ").removesuffix("?)") or None


def known_operator(name: str) -> bool:
    quantifier, colon, base = name.rpartition(":")
    return base in OPERATORS and (not colon or quantifier in ("ForAllValues", "ForAnyValue"))
