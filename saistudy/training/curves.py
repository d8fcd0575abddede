"""The curves of a run in TensorBoard: event files that are the csv, and a server for this machine alone.

Ultralytics' own writer hangs on a setting that is read when it is imported (8.4.190), writes other columns
and knows nothing of our resume.
"""

import logging
import socket
from pathlib import Path

import pandas as pd
from tensorboard import program
from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"  # below the run's
HOST = "127.0.0.1"


def attach(trainer, folder: Path) -> None:
    """Have an Ultralytics trainer write `folder` anew as it starts, and every epoch as it is saved.

    Written anew, for what a kill cut off or a lost folder lacks stands in the csv that the resume restores.
    """
    writers = []

    def begin(trainer):
        writers.append(rewritten(trainer.csv, folder))

    trainer.add_callback("on_train_start", begin)
    trainer.add_callback("on_model_save", lambda trainer: add(writers[-1], pd.read_csv(trainer.csv).tail(1)))
    trainer.add_callback("teardown", lambda _: [writer.close() for writer in writers])


def rewritten(csv: Path, folder: Path) -> SummaryWriter:
    """A writer into `folder`, where earlier event files gave way to one with every epoch of a results.csv.

    It begins with a session that purges all steps, so that a server which is up forgets what it has read.
    """
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    writer = SummaryWriter(str(folder), purge_step=0)
    if csv.is_file():
        add(writer, pd.read_csv(csv))
    return writer


def add(writer: SummaryWriter, rows: pd.DataFrame) -> None:
    """Write each numeric column but `epoch` of a results.csv as a float32 scalar, step = epoch, and flush."""
    for row in rows.select_dtypes("number").to_dict("records"):
        epoch = int(row.pop("epoch"))
        for column, value in row.items():
            writer.add_scalar(column, value, epoch)
    writer.flush()


def serve(folder: Path, port: int) -> str | None:
    """The URL of a TensorBoard that shows a folder, which may come later, until this process ends.

    None, and one sentence, where the port cannot be had. Events are read in this process (load_fast starts
    another one) and from all files of the folder: the default keeps to a file that was replaced (2.21).
    """
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of every restart
    board = program.TensorBoard()
    board.configure(logdir=str(folder), host=HOST, port=port, load_fast="false", reload_multifile=True)
    try:
        socket.create_server((HOST, port)).close()  # launch would leave a thread behind where it fails
        board.launch()
    except (OSError, program.TensorBoardServerException):
        print(f"TensorBoard is not shown: port {port} cannot be had, name another; the curves are kept.")
        return None
    return f"http://localhost:{port}"
