from .data.batch_sampler import EpochBatches
from .data.collator import Collator
from .data.preparation import Example, encode_prompt, load_examples, prepare_dataset
from .errors import InputError, Stopped, TrainingFailed
from .from_python.distill import DistillationReport, Distilled, distill
from .from_python.models import Student
from .losses.chunked import chunked_loss
from .losses.divergences import DIVERGENCES
from .methods import METHODS, Method
from .modeling.head_folder import head_folder
from .modeling.lm_head import Head, output_head
from .modeling.lora import LoraOptions
from .modeling.projectors import AffineProjectors, DualSpaceProjectors
from .teachers.build_cache import build_teacher_cache
from .teachers.cache_store import TeacherCacheDamaged
from .teachers.cached import open_teacher_cache
from .teachers.options import ServedOptions, TeacherCacheOptions, TeacherSource
from .teachers.teacher import Teacher
from .tokenization.alignment import align, align_tokenizers, byte_spans
from .tokenization.conversations import Conversation, Message
from .tokenization.prompt_templates import Instruction, Template
from .tokenization.vocabulary import SharedVocabulary, Vocabulary, share_vocabulary
from .training.options import TrainingOptions
from .training.run import train
from .training.trainer import DistillationTrainer

__all__ = [
    "DIVERGENCES",
    "METHODS",
    "AffineProjectors",
    "Collator",
    "Conversation",
    "DistillationReport",
    "DistillationTrainer",
    "Distilled",
    "DualSpaceProjectors",
    "EpochBatches",
    "Example",
    "Head",
    "InputError",
    "Instruction",
    "LoraOptions",
    "Message",
    "Method",
    "ServedOptions",
    "SharedVocabulary",
    "Stopped",
    "Student",
    "Teacher",
    "TeacherCacheDamaged",
    "TeacherCacheOptions",
    "TeacherSource",
    "Template",
    "TrainingFailed",
    "TrainingOptions",
    "Vocabulary",
    "align",
    "align_tokenizers",
    "build_teacher_cache",
    "byte_spans",
    "chunked_loss",
    "distill",
    "encode_prompt",
    "head_folder",
    "load_examples",
    "open_teacher_cache",
    "output_head",
    "prepare_dataset",
    "share_vocabulary",
    "train",
]
__version__: str
