# Uses the profile edge-workload until its first session has run out, and
# prints what it saw as JSON.
import datetime
import json
import os
import time

import boto3
import botocore.exceptions

sts_url = os.environ["AWS_ENDPOINT_URL_STS"]  # old versions do not read it


def client(session, **credentials):
    return session.client("sts", endpoint_url=sts_url, **credentials)


def look(session, sts):
    arn = sts.get_caller_identity()["Arn"]
    frozen = session.get_credentials().get_frozen_credentials()
    return arn, frozen


session = boto3.Session(profile_name="edge-workload")
sts = client(session)
arn, first = look(session, sts)

# The environment and the files that lead here hold no secret.
config = open(os.environ["AWS_CONFIG_FILE"]).read()
for text in list(os.environ.values()) + [config]:
    assert "PRIVATE KEY" not in text, "a private key"
    assert first.secret_key not in text and first.token not in text, "a session's secret"
    assert "aws_secret_access_key" not in text.lower(), "a secret access key"
assert "AWS_ACCESS_KEY_ID" not in os.environ and "AWS_SECRET_ACCESS_KEY" not in os.environ
assert open(os.environ["AWS_SHARED_CREDENTIALS_FILE"]).read() == ""

# Wait until the service itself says that the first session has run out.
stale = client(session, aws_access_key_id=first.access_key,
               aws_secret_access_key=first.secret_key, aws_session_token=first.token)
refusal = None
deadline = time.monotonic() + 60
while refusal is None and time.monotonic() < deadline:
    try:
        stale.get_caller_identity()
        time.sleep(0.5)
    except botocore.exceptions.ClientError as e:
        refusal = e.response["Error"]["Code"]
after = datetime.datetime.now(datetime.timezone.utc)

arn_again, second = look(session, sts)
print(json.dumps({
    "boto3": boto3.__version__,
    "arns": [arn, arn_again],
    "keys": [first.access_key, second.access_key],
    "refusal": refusal,
    "after": after.isoformat(),
}))
