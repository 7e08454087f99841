"""Face tools: detect, embed, segment, retouch, enhance, fuse; each behind a protocol of `base`."""
