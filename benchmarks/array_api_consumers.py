"""Functions of libraries that are written for the array API, each of one array (6, 3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Calls = dict[str, Callable[[Any], Any]]


def calls(library: str) -> Calls:
    """name -> a function of one array, of a library that is installed."""
    return {"scipy": scipy, "scikit-learn": sklearn, "einops": einops, "array-api-extra": extra}[library]()


def scipy() -> Calls:
    """SciPy's, with SCIPY_ARRAY_API=1 in the environment."""
    import scipy.cluster
    import scipy.ndimage
    import scipy.optimize
    import scipy.signal
    from scipy import integrate, special
    from scipy.spatial.transform import Rotation

    return {
        "special.logsumexp": lambda t: special.logsumexp(t, axis=1),
        "special.softmax": lambda t: special.softmax(t, axis=1),
        "special.log_softmax": lambda t: special.log_softmax(t, axis=1),
        "special.xlogy": lambda t: special.xlogy(t, t),
        "special.expit": lambda t: special.expit(t),
        **scipy_stats(),
        "optimize.rosen": lambda t: scipy.optimize.rosen(t[:, 0]),
        "integrate.trapezoid": lambda t: integrate.trapezoid(t, axis=0),
        "integrate.cumulative_trapezoid": lambda t: integrate.cumulative_trapezoid(t, axis=0),
        "integrate.simpson": lambda t: integrate.simpson(t, axis=0),
        "cluster.vq.whiten": lambda t: scipy.cluster.vq.whiten(t),
        "spatial.transform.Rotation": lambda t: Rotation.from_rotvec(t).as_matrix(),
        "signal.detrend": lambda t: scipy.signal.detrend(t, axis=0),
        "ndimage.gaussian_filter": lambda t: scipy.ndimage.gaussian_filter(t, 1),
    }


def scipy_stats() -> Calls:
    """Those of scipy.stats."""
    from scipy import stats

    return {
        "stats.zscore": lambda t: stats.zscore(t),
        "stats.zmap": lambda t: stats.zmap(t, t),
        "stats.skew": lambda t: stats.skew(t),
        "stats.kurtosis": lambda t: stats.kurtosis(t),
        "stats.moment": lambda t: stats.moment(t, 3),
        "stats.gmean": lambda t: stats.gmean(t),
        "stats.hmean": lambda t: stats.hmean(t),
        "stats.pmean": lambda t: stats.pmean(t, 2),
        "stats.gstd": lambda t: stats.gstd(t),
        "stats.tmean": lambda t: stats.tmean(t),
        "stats.sem": lambda t: stats.sem(t),
        "stats.kstat": lambda t: stats.kstat(t, 2),
        "stats.circmean": lambda t: stats.circmean(t),
        "stats.describe": lambda t: stats.describe(t).variance,
        "stats.variation": lambda t: stats.variation(t),
        "stats.lmoment": lambda t: stats.lmoment(t, 2),
        "stats.pearsonr": lambda t: stats.pearsonr(t[:, 0], t[:, 1]).statistic,
        "stats.entropy": lambda t: stats.entropy(t),
        "stats.ttest_1samp": lambda t: stats.ttest_1samp(t, 0.3).statistic,
    }


def sklearn() -> Calls:
    """scikit-learn's, with array_api_dispatch."""
    from sklearn import config_context, decomposition, linear_model, preprocessing
    from sklearn.metrics import mean_squared_error, pairwise, r2_score

    def dispatched(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(t: Any) -> Any:
            with config_context(array_api_dispatch=True):
                return f(t)

        return call

    found: Calls = {
        "pairwise.cosine_similarity": lambda t: pairwise.cosine_similarity(t, t[:2]),
        "pairwise.euclidean_distances": lambda t: pairwise.euclidean_distances(t[:3], t[3:]),
        "pairwise.linear_kernel": lambda t: pairwise.linear_kernel(t, t),
        "pairwise.polynomial_kernel": lambda t: pairwise.polynomial_kernel(t, t),
        "pairwise.rbf_kernel": lambda t: pairwise.rbf_kernel(t[:3], t[3:]),
        "pairwise.sigmoid_kernel": lambda t: pairwise.sigmoid_kernel(t, t),
        "pairwise.additive_chi2_kernel": lambda t: pairwise.additive_chi2_kernel(t, t[:2]),
        "StandardScaler": lambda t: preprocessing.StandardScaler().fit_transform(t),
        "MinMaxScaler": lambda t: preprocessing.MinMaxScaler().fit_transform(t),
        "MaxAbsScaler": lambda t: preprocessing.MaxAbsScaler().fit_transform(t),
        "Normalizer": lambda t: preprocessing.Normalizer().fit_transform(t),
        "PolynomialFeatures": lambda t: preprocessing.PolynomialFeatures().fit_transform(t),
        "KernelCenterer": lambda t: preprocessing.KernelCenterer().fit_transform(t @ t.T),
        "PCA": lambda t: decomposition.PCA(2, svd_solver="full").fit(t).explained_variance_,
        "Ridge": lambda t: linear_model.Ridge(solver="svd").fit(t, t[:, 0] ** 2).coef_,
        "mean_squared_error": lambda t: mean_squared_error(t, t * 2),
        "r2_score": lambda t: r2_score(t, t * 2),
    }
    return {name: dispatched(f) for name, f in found.items()}


def einops() -> Calls:
    """einops.array_api, the part of einops that is written for the standard."""
    from einops import array_api

    return {
        "array_api.rearrange": lambda t: array_api.rearrange(t, "(a b) c -> b (a c)", a=2),
        "array_api.reduce": lambda t: array_api.reduce(t, "a b -> b", "mean"),
        "array_api.repeat": lambda t: array_api.repeat(t, "a b -> a c b", c=2),
        "array_api.asnumpy": lambda t: array_api.asnumpy(t),
    }


def extra() -> Calls:
    """array-api-extra's."""
    import array_api_extra as xpx

    return {
        "atleast_nd": lambda t: xpx.atleast_nd(t, ndim=3),
        "cov": lambda t: xpx.cov(t),
        "kron": lambda t: xpx.kron(t, t[:2]),
        "sinc": lambda t: xpx.sinc(t),
        "create_diagonal": lambda t: xpx.create_diagonal(t[0]),
        "expand_dims": lambda t: xpx.expand_dims(t, axis=(0, 2)),
        "pad": lambda t: xpx.pad(t, 2),
        "at.set": lambda t: xpx.at(t * 1.0)[0].set(2.0),
    }
