"""Train an anchored classifier in your own loop, and detect classes it was not trained on.

The network is trained on the digits 0 to 7 and evaluated on all ten. Its predictions for 8 and 9 are necessarily wrong;
its uncertainty should be high there.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import anchor_jax as aj

# --- data: images float [N, 8, 8, 1], normalized so that zero is the mean image ---------------------------

images, labels = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8, 1).astype(np.float32)
is_known, is_test = labels < 8, np.arange(len(labels)) % 5 == 0
train_images, train_labels = images[is_known & ~is_test], labels[is_known & ~is_test]
mean, std = train_images.mean(), train_images.std()

bank = jnp.asarray((train_images - mean) / std)  # references are drawn from the training set
x_test = jnp.asarray((images[is_test] - mean) / std)


# --- model: any function f(params, inputs); its first layer takes twice the channels of the images --------


class Net(nn.Module):
    @nn.compact
    def __call__(self, inputs):
        h = nn.relu(nn.Conv(16, (3, 3))(inputs))
        h = nn.relu(nn.Conv(32, (3, 3), strides=2)(h))
        return nn.Dense(8)(h.reshape(len(h), -1))


model, optimizer = Net(), optax.adam(2e-3)
params = model.init(jax.random.key(0), aj.anchor(bank[:1], bank[:1]))
opt_state = optimizer.init(params)


# --- training step: the references, the mask and the masked loss are new -----------------------------------


@jax.jit
def train_step(params, opt_state, bank, x, labels, key):  # the bank is an argument, not a constant of the program
    reference_key, mask_key = jax.random.split(key)
    references = aj.sample_references(reference_key, bank, len(x))
    mask = aj.sample_mask(mask_key, len(x), prob=0.25)

    def loss_fn(params):
        logits = aj.anchored(model.apply)(params, x, references, mask=mask)
        return aj.anchored_cross_entropy(logits, labels, mask).mean()

    loss, grads = jax.value_and_grad(loss_fn)(params)
    updates, opt_state = optimizer.update(grads, opt_state)
    return optax.apply_updates(params, updates), opt_state, loss


rng, batch_size = np.random.default_rng(0), 64
for step in range(400):
    rows = rng.choice(len(bank), batch_size, replace=False)
    key = jax.random.fold_in(jax.random.key(1), step)
    params, opt_state, loss = train_step(params, opt_state, bank, bank[rows], train_labels[rows], key)

# --- inference: average over K references, and measure how far they disagree -------------------------------

references = aj.sample_references(jax.random.key(2), bank, 20, replace=False)
prediction = jax.jit(aj.classify, static_argnums=0)(model.apply, params, x_test, references)

is_known, labels = is_known[is_test], labels[is_test]
is_correct = is_known & (np.argmax(prediction.probs, axis=1) == labels)
accuracy = is_correct[is_known].mean()
scores = {  # higher means less certain
    "1 - largest probability": 1 - np.max(prediction.probs, axis=1),
    "entropy of the mean": np.asarray(prediction.entropy),  # total uncertainty, including that of the data
    "mutual information": np.asarray(prediction.mutual_information),  # disagreement between references
}
aurocs = {name: roc_auc_score(~is_known, score) for name, score in scores.items()}

print(f"accuracy on the digits 0 to 7: {accuracy:.1%}")
for name, auroc in aurocs.items():
    print(f"AUROC of 8 and 9 against 0 to 7, by {name}: {auroc:.3f}")

# --- selective prediction: abstain on uncertain images to raise the accuracy on the rest -------------------

is_certain = scores["entropy of the mean"] <= np.quantile(scores["entropy of the mean"], 0.7)
selective_accuracy = is_correct[is_certain].mean()
print(f"accuracy on all ten digits: {is_correct.mean():.1%}; on the most certain 70%: {selective_accuracy:.1%}")
