"""The names by which the columns of a table are known, the likeliest first."""

__all__ = ["IMAGE_COLUMNS", "LABEL_COLUMNS", "TEXT_COLUMNS"]

TEXT_COLUMNS = ("text", "sentence", "review", "content", "document", "comment")
IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "coarse_label", "fine_label", "sentiment", "class", "target")
