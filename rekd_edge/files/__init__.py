"""Everything that writes or deletes files goes through here: atomic writes, staged folders, locks, digests, removal.

Four rules hold for all of it. No symbolic link is followed out of a folder of ours; temporary names cannot be guessed;
what is renamed into place is on the disk before; and nothing is deleted that does not carry our marker.
"""

from rekd_edge.files.atomic import create_file, replacing, sync_folder, sync_tree, write_text
from rekd_edge.files.digests import DIGESTS, verify_digests, write_digests
from rekd_edge.files.documents import read_json, sha256_of, write_json
from rekd_edge.files.locks import locked
from rekd_edge.files.ownership import MARKER, claim_folder, is_ours, remove_ours
from rekd_edge.files.paths import check_output_folder, check_place, inside, real_folder
from rekd_edge.files.staging import built_in_place, staged_folder

__all__ = [
    "DIGESTS",
    "MARKER",
    "built_in_place",
    "check_output_folder",
    "check_place",
    "claim_folder",
    "create_file",
    "inside",
    "is_ours",
    "locked",
    "read_json",
    "real_folder",
    "remove_ours",
    "replacing",
    "sha256_of",
    "staged_folder",
    "sync_folder",
    "sync_tree",
    "verify_digests",
    "write_digests",
    "write_json",
    "write_text",
]
