"""Uncertainty in my own loop: a network on handwritten digits that knows what it has not learnt.

It is trained on the digits 0 to 7 alone, then asked for all ten. On 8 and 9 it must be wrong; it should say so.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import anchor_jax as aj

# --- data: images float [N, 8, 8, 1], normalised, so that zero is the mean image ---------------------------

images, labels = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8, 1).astype(np.float32)
is_known, is_test = labels < 8, np.arange(len(labels)) % 5 == 0
train_images, train_labels = images[is_known & ~is_test], labels[is_known & ~is_test]
mean, std = train_images.mean(), train_images.std()

bank = jnp.asarray((train_images - mean) / std)  # the training set is the set of references
x_test = jnp.asarray((images[is_test] - mean) / std)


# --- a model: any function f(params, inputs); its first layer sees twice the channels ----------------------


class Net(nn.Module):
    @nn.compact
    def __call__(self, inputs):
        h = nn.relu(nn.Conv(16, (3, 3))(inputs))
        h = nn.relu(nn.Conv(32, (3, 3), strides=2)(h))
        return nn.Dense(8)(h.reshape(len(h), -1))


model, optimizer = Net(), optax.adam(2e-3)
params = model.init(jax.random.key(0), aj.anchor(bank[:1], bank[:1]))
moments = optimizer.init(params)


# --- a step: three lines are new, the references, the mask, and the loss that knows of the mask ------------


@jax.jit
def train_step(params, moments, x, labels, key):
    reference_key, mask_key = jax.random.split(key)
    references = aj.sample_references(reference_key, bank, len(x))
    mask = aj.sample_mask(mask_key, len(x), prob=0.25)

    def loss_of(params):
        logits = aj.anchored(model.apply)(params, x, references, mask=mask)
        return aj.anchored_cross_entropy(logits, labels, mask).mean()

    loss, gradient = jax.value_and_grad(loss_of)(params)
    updates, moments = optimizer.update(gradient, moments)
    return optax.apply_updates(params, updates), moments, loss


rng, batch_size = np.random.default_rng(0), 64
for step in range(400):
    rows = rng.choice(len(bank), batch_size, replace=False)
    key = jax.random.fold_in(jax.random.key(1), step)
    params, moments, loss = train_step(params, moments, bank[rows], train_labels[rows], key)

# --- answers: K references give K predictions, their mean and how far they disagree ------------------------

references = aj.sample_references(jax.random.key(2), bank, 20, replace=False)
answer = jax.jit(aj.classify, static_argnums=0)(model.apply, params, x_test, references)

is_known, labels = is_known[is_test], labels[is_test]
accuracy = np.mean(np.argmax(answer.probs, axis=1)[is_known] == labels[is_known])
scores = {  # higher is less certain
    "1 - largest probability": 1 - np.max(answer.probs, axis=1),
    "entropy of the mean": np.asarray(answer.entropy),  # all uncertainty, that of the data as well
    "mutual information": np.asarray(answer.mutual_information),  # what the references disagree on
}
found = {name: roc_auc_score(~is_known, score) for name, score in scores.items()}

print(f"accuracy on digits that were learnt: {accuracy:.1%}")
for name, auroc in found.items():
    print(f"AUROC of 8 and 9 against the others, by {name}: {auroc:.3f}")

# --- use: refuse what is uncertain, and be right more often on the rest ------------------------------------

is_right = is_known & (np.argmax(answer.probs, axis=1) == labels)
is_sure = scores["entropy of the mean"] <= np.quantile(scores["entropy of the mean"], 0.7)
answered = is_right[is_sure].mean()
print(f"right among all ten digits: {is_right.mean():.1%}; among the 70 % it is most certain of: {answered:.1%}")
