"""What the published programs keep of a training run that stopped, by the names that we give it.

`models/<system>/published_training.py` reads and writes it for one system; three names say what
its functions take.
"""

from collections.abc import Mapping

from torch import Tensor

Content = Mapping[str, object]  # what a published file holds, key by key
Weights = Mapping[str, Tensor]  # our parameters and buffers, in the order of the model
# {"epoch", "step": how many are done, "moments": by parameter, "scaler", "groups": settings of the
# optimizer's groups, "steps": the count of each parameter, "beside": what only the program reads}
Stopped = dict[str, object]
