"""Flash Memory of a camera stream, and answers about it."""

import logging
from pkgutil import extend_path

# The interfaces (fvs_ros.msg, fvs_ros.srv, fvs_ros.action) are generated into the install tree, while this
# folder may be imported from a checkout: both belong to one package.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"

# transformers imports torchao wherever that is installed, and that warns of kernels for other machines, which nothing
# here uses.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
