import os

# Twice a 33 MP stills camera; an image that claims more is a broken header or a decompression bomb.
MAX_PIXELS = 2**26
# Of a message or a file: as many pixels in the largest encoding, rgba16.
MAX_BYTES = 8 * MAX_PIXELS
# Of recordings, in pictures a second: one in eleven days, and more than any camera gives. Beyond them, times or the
# number of frames become infinite.
LOWEST_RATE, HIGHEST_RATE = 1e-6, 1e6
# OpenCV's own bound, for files whose headers it reads alone; it looks into the environment once, when it is loaded.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
