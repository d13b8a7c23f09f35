"""Names of what is compared, in the order of tables and figures. Without torch: measures and figures use them too."""

EAGER, CAPTURED, AGAIN = "eager", "captured", "eager again"
ON_DEVICE, USUAL_LOOP = "data on the device", "DataLoader"
NETWORKS = ("ResNet-20", "ResNet-32")
METHODS = ("SGD", "Adam", "AdaHessian", "AdaHessian every 4", "AdaHessian Gauss-Newton", "AdaHessian 1/4 batch")
PRECISIONS = ("float32", "TF32", "TF32, channels last", "bfloat16", "bfloat16, channels last")
