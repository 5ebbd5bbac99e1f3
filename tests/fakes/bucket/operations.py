"""Which S3 operation a request is.

Belongs here: methods, paths and queries. Must not know: what is done with the answer.
"""

from collections.abc import Mapping
from urllib.parse import unquote

_OF_BUCKET = {
    "GET": "ListObjectsV2",
    "HEAD": "HeadBucket",
    "PUT": "CreateBucket",
    "DELETE": "DeleteBucket",
}
_OF_OBJECT = {
    "GET": "GetObject",
    "HEAD": "HeadObject",
    "PUT": "PutObject",
    "DELETE": "DeleteObject",
}
_OF_UPLOAD = {
    "GET": "ListParts",
    "PUT": "UploadPart",
    "POST": "CompleteMultipartUpload",
    "DELETE": "AbortMultipartUpload",
}


def operation_of(method: str, path: str, query: Mapping[str, str]) -> tuple[str, str]:
    """Name a path-style request's operation and key; `""` is the bucket's key."""
    _, _, key = unquote(path).lstrip("/").partition("/")
    if "uploadId" in query:
        return _OF_UPLOAD.get(method, "Unknown"), key
    if "uploads" in query:
        return {"GET": "ListMultipartUploads"}.get(method, "CreateMultipartUpload"), key
    return (_OF_OBJECT if key else _OF_BUCKET).get(method, "Unknown"), key
