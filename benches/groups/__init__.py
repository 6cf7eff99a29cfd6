"""The measurements. Each module has `TITLE`, `ABOUT`, and `measure(scale)`, which gives its outcomes one by one."""
