"""What AdaHessian's paper (Yao et al., arXiv 2006.00719) prints, as far as experiments need it, and what a replication does."""

# Table 2: test accuracy in per cent, mean and spread of RUNS runs, best epoch.
RUNS = 5
TABLE_2 = {
    "ResNet-20": {"SGD": (92.08, 0.08), "Adam": (90.33, 0.13), "AdamW": (91.97, 0.15), "AdaHessian": (92.13, 0.18)},
    "ResNet-32": {"SGD": (93.14, 0.10), "Adam": (91.63, 0.10), "AdamW": (92.72, 0.20), "AdaHessian": (93.08, 0.10)},
}
# Table 6: BLEU on IWSLT14 by the factor on the learning rate; AdamW diverged at 10.
TABLE_6 = {
    "AdamW": {0.5: 35.42, 1: 35.66, 2: 35.37, 3: 35.18, 4: 34.79, 5: 14.41, 6: 0.41},
    "AdaHessian": {0.5: 35.33, 1: 35.79, 2: 35.21, 3: 34.74, 4: 34.19, 5: 33.78, 6: 32.70, 10: 32.48},
}
# Table 7: BLEU on IWSLT14 for blocks of 1 to 128 entries: least, most.
TABLE_7 = (35.66, 35.79)
# Table 8: accuracy of ResNet-20 in per cent, and time over SGD's, by the steps from one Hessian to the next.
TABLE_8_ACCURACY = {1: 92.13, 2: 92.40, 3: 92.06, 4: 92.17, 5: 92.16}
TABLE_8_COST = {1: 2.42, 2: 1.71, 3: 1.47, 4: 1.36, 5: 1.28}
# Ma (arXiv 2009.13586), table in the README of its code: accuracy of ResNet-110 on CIFAR-10 in per cent, mean and standard
# deviation, of how many runs it does not say; by schedule. All decays are decoupled but SGD's; that of 'Adam, small decay' is
# 5e-4 like SGD's, that of Adam 500 times as large.
REPLICATED = {
    "drops": {"SGD": (93.94, 0.07), "Adam, small decay": (91.41, 0.30), "Adam": (93.74, 0.15), "AdaHessian": (93.97, 0.22)},
    "cosine": {"SGD": (94.53, 0.27), "Adam, small decay": (91.56, 0.19), "Adam": (94.24, 0.09), "AdaHessian": (94.48, 0.17)},
}
