"""Published networks whose weights serve as teachers; `targets` has what they make of pictures.

Four networks are known, recognised by the names of the tensors in the file:

- BSRN, the blueprint separable residual network (Li et al. 2022, arXiv 2205.05996), input 0 to 1;
- RFDN, the residual feature distillation network (Liu et al. 2020, arXiv 2009.11551), 0 to 255;
- RLFN, the residual local feature network (Kong et al. 2022, arXiv 2205.07514), 0 to 255;
- RRDBNet, the generator of ESRGAN (Wang et al. 2018, arXiv 1809.00219), input 0 to 1.

The definitions follow the papers; their layers carry the names of the published files, so that
these load as they are. (RRDBNet's files come in three layouts of names, of which its layers carry
one.) Widths, depth and scale are read off the tensors' shapes. BSRN's released x4 weights score
32.35 dB on Set5 and 28.74 dB on Set14 in the default protocol of `metrics`, which also shows that
the evaluation there is right.

Shapes: LR `[N, 3, h, w]`, output `[N, 3, h * scale, w * scale]`, both in [0, 1].
"""

from examples.sr_trilevel.teachers.bsrn import BSRN as BSRN
from examples.sr_trilevel.teachers.load import load_teacher as load_teacher
from examples.sr_trilevel.teachers.rfdn import RFDN as RFDN
from examples.sr_trilevel.teachers.rlfn import RLFN as RLFN
from examples.sr_trilevel.teachers.rrdb import RRDBNet as RRDBNet
from examples.sr_trilevel.teachers.teacher import Teacher as Teacher
